"""The data set as it is handed out: shards, manifest, card, page, validation, and forgetting."""
