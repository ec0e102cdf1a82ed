"""Conversations of what was curated, described and cut out."""
