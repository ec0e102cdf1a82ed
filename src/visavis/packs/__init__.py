"""Packs: the pretrained parts of a run, each in the format of its own library, with licences and hashes."""

from visavis.packs.manifest import Manifest, Pack, Part, bundled_packs, load_pack, write_manifest

__all__ = ["Manifest", "Pack", "Part", "bundled_packs", "load_pack", "write_manifest"]
