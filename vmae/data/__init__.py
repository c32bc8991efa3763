"""Videos in: reading, sampling, lists, the rendered sets, the store, batches."""
