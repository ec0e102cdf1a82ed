"""The procedural world of illustrated people: who they are, what a picture shows, and how it is drawn.

Knows nothing of models. What it says about a picture is exact; only pretraining and scoring may use it.
"""
