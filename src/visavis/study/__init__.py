"""A blind study of two systems' pictures: people, or a model judge, say which of two is better.

A study is a folder: `plan.json` and `pictures/` under names that tell nothing. Votes lie in a database.
"""
