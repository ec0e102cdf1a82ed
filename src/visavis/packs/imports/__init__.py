"""From published checkpoints to a pack."""

from visavis.packs.imports.whole import SOURCES, ImportOptions, find_sources, import_pack

__all__ = ["SOURCES", "ImportOptions", "find_sources", "import_pack"]
