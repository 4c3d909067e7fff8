"""All works, in the order of the report."""

from __future__ import annotations

from benchmarks.model import Work
from benchmarks.works.append import WORKS as APPEND
from benchmarks.works.durable import WORKS as DURABLE
from benchmarks.works.life import WORKS as LIFE
from benchmarks.works.read import WORKS as READ

WORKS: dict[str, Work] = {work.name: work for work in (*APPEND, *READ, *DURABLE, *LIFE)}
