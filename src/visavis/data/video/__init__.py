"""Reading files that may be anything, in processes that may die."""
