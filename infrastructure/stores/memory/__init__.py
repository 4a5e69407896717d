"""IDataStore in memory: the first of every suite, which keeps the same promises as the others."""
