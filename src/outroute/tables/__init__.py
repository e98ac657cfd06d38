"""A user's own tables: reading them, mapping them to a schema, drafting a schema from them.

====================  ==================================================================
``reading``           CSV, Parquet, NDJSON, data frames; whole or in batches
``table``, ``times``  columns as numbers, codes and times; what means "missing"
``mapping``           ``mapping.toml``: own columns, units, codes and gaps
``applying``          a mapping applied: usable rows, and rows refused with reasons
``observed``          what comes out of that
``template``          a draft of ``mapping.toml``
``infer``             a draft of a schema (``profiles``, ``ranges``, ``outcomes``)
``learning``          landmarks from public or cohort data
====================  ==================================================================
"""

from __future__ import annotations
