"""Addresses of datasets and of searches among their samples, both ways."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request

from mmcore.dashboard.index.build import FACETS
from mmcore.dashboard.index.datasets import Dataset, find_dataset
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.query import Query


def wanted_dataset(request: Request) -> Dataset:
    """Return the dataset version that the address names; 404 when there is none."""
    name, version = request.path_params["name"], request.path_params["version"]
    index: SampleIndex = request.app.state.samples
    dataset = find_dataset(index.database, name, version)
    if dataset is None:
        raise HTTPException(404, f"There is no dataset {name}/{version} here, or not yet.")
    return dataset


def dataset_address(dataset: Dataset) -> str:
    """Return the address of a dataset version."""
    return f"/datasets/{quote(dataset.name)}/{quote(dataset.version)}"


def query_of(parameters: Mapping[str, str]) -> Query:
    """Return what the address asks for; unknown names are left out."""
    filters = [(facet, parameters.get(facet, "")) for facet in FACETS]
    return Query(
        filters=tuple((facet, value) for facet, value in filters if value),
        words=parameters.get("q", "")[:500],
        twin=parameters.get("twin", "")[:200],
    )


def query_string(query: Query) -> str:
    """Return an address' part that asks the same again."""
    pairs = [("q", query.words), *query.filters, ("twin", query.twin)]
    return urlencode([(name, value) for name, value in pairs if value])
