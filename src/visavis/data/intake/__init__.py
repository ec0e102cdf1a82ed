"""What there is to curate: folders, buckets, manifests, scenes of long videos."""
