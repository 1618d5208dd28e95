from mlflow_store import empty_database, root

__all__ = ["empty_database", "root"]
