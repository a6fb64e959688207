"""The series of a collection, and under which licence, from the index that idc-index installs; nothing is fetched.

The index knows words, sizes and places; of physics and geometry it has nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from brainseg.errors import InputError, UsageError

_COLUMNS = [
    "collection_id",
    "PatientID",
    "StudyInstanceUID",
    "StudyDate",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "instanceCount",
    "series_size_MB",
    "series_aws_url",
    "license_short_name",
    "source_DOI",
]
_UID = re.compile(r"[0-9.]{1,64}")
_URL = re.compile(r"s3://[a-z0-9.-]+/[0-9a-f-]+/\*")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Listed:
    """One series as the index lists it.

    Attributes:
        patient: PatientID, a public pseudonym.
        study_date: as YYYY-MM-DD, shifted as the collection has it; empty where unknown.
        instances, size_bytes: of all its files together.
        url: `s3://bucket/folder/*`.
        licence: short name.
        doi: of the source that it belongs to, whose licence and citation `read_sources` gives.
    """

    patient: str
    study: str
    study_date: str
    series: str
    modality: str
    description: str
    number: int | None
    instances: int
    size_bytes: int
    url: str
    licence: str
    doi: str


@dataclass(frozen=True)
class Source:
    """Where series come from, and on what terms."""

    doi: str
    title: str
    licence: str
    licence_url: str
    citation: str


def read_index(collection: str) -> tuple[str, list[Listed]]:
    """The name of a collection as the index spells it, and its series.

    Raises:
        UsageError: idc-index is not installed, or its index has no such collection.
        InputError: the index is not of the form that is known.
    """
    name = collection.strip().lower().replace("-", "_").replace(" ", "_")
    rows = _rows("idc_index", _COLUMNS, [("collection_id", "=", name)])
    if not rows:
        known = {row["collection_id"] for row in _rows("collections_index", ["collection_id"])}
        raise unknown_collection(collection, name, known)
    return name, [listed(row) for row in rows]


def unknown_collection(given: str, name: str, known: Collection[str]) -> UsageError:
    """What to say where no collection has this name."""
    near = get_close_matches(name, known, n=4, cutoff=0.6)
    remedy = f"perhaps {', '.join(near)}" if near else "see portal.imaging.datacommons.cancer.gov for their names"
    licensed = "what TCIA gives under a licence only is fetched with its own retriever, and read as it lies"
    return UsageError(given, "is not a collection of the open index", f"{remedy}; {licensed}")


def listed(row: Mapping[str, Any]) -> Listed:
    """A row of the index.

    Raises:
        InputError: identifiers that could not be a folder's name, or no size.
    """
    uids = [str(row["StudyInstanceUID"]), str(row["SeriesInstanceUID"])]
    url, size = str(row["series_aws_url"]), row["series_size_MB"]
    if not all(map(_UID.fullmatch, uids)) or not _URL.fullmatch(url) or size is None or not row["instanceCount"]:
        raise InputError("idc-index", "lists a series in a form that is not known", "install another version of it")
    date, number = str(row["StudyDate"] or ""), str(row["SeriesNumber"] or "")
    return Listed(
        patient=str(row["PatientID"]),
        study=uids[0],
        study_date=date if _DATE.fullmatch(date) else "",
        series=uids[1],
        modality=str(row["Modality"] or ""),
        description=str(row["SeriesDescription"] or ""),
        number=int(number) if number.lstrip("-").isdecimal() else None,
        instances=int(row["instanceCount"]),
        size_bytes=round(float(size) * 1e6),
        url=url,
        licence=str(row["license_short_name"] or "unknown licence"),
        doi=str(row["source_DOI"] or ""),
    )


def read_sources(collection: str, dois: Collection[str]) -> list[Source]:
    """What the index says of the sources with these `dois` in a collection; a DOI that it does not know is left out."""
    rows = _rows("collections_index", ["collection_id", "sources"], [("collection_id", "=", collection)])
    wanted = {doi.lower() for doi in dois}
    items = (item for row in rows for item in row["sources"] or ())
    return [source(item) for item in items if str(item["source_doi"]).lower() in wanted]


def source(item: Mapping[str, Any]) -> Source:
    """An entry of the collections' `sources`."""
    licence = item["license"] or {}
    return Source(
        doi=_plain(item["source_doi"]),
        title=_plain(item["source_title"]),
        licence=_plain(licence.get("license_short_name")) or "unknown licence",
        licence_url=_plain(licence.get("license_url")),
        citation=_plain(item["citation"]),
    )


def _plain(text: object) -> str:
    """One line without markup."""
    words = html.unescape(re.sub(r"</?[a-z]+>", "", str(text or "")))
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())


def _rows(table: str, columns: list[str], filters: list[tuple[str, str, str]] | None = None) -> list[dict[str, Any]]:
    """Rows of one of the tables that the package idc-index-data holds."""
    try:
        from idc_index_data import INDEX_METADATA
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_table
    except ImportError:
        cause = "needs idc-index, which is not installed"
        raise UsageError("brainseg data fetch", cause, 'pip install "brainseg[tcia]"') from None
    try:
        rows: list[dict[str, Any]] = read_table(
            INDEX_METADATA[table]["parquet_filepath"], columns=columns, filters=filters
        ).to_pylist()
    except (ArrowInvalid, KeyError, OSError, TypeError) as error:
        cause = f"has no index that can be read ({type(error).__name__})"
        raise InputError("idc-index", cause, 'pip install --upgrade "brainseg[tcia]"') from None
    if rows and set(columns) - set(rows[0]):
        raise InputError("idc-index", "has an index without the columns needed", 'pip install "brainseg[tcia]"')
    return rows
