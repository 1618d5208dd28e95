"""WebDataset shards with every index that the field's readers look for."""
