"""How much a document may say, and what a file may be unpacked to."""

from typing import Annotated

from pydantic import Field

from infrastructure.settings.parts import Int, Section, setting


class LimitSettings(Section):
    """What is refused by name before it costs more than it may."""

    document_bytes: Annotated[Int, Field(ge=1024, le=16_777_216)] = setting(
        256 * 1024, "Largest document, and largest body of a call that takes none (spec.too_large, body.too_large)."
    )
    document_depth: Annotated[Int, Field(ge=5, le=100)] = setting(
        40, "How deep lists and mappings of a document may nest (spec.yaml)."
    )
    document_nodes: Annotated[Int, Field(ge=100, le=1_000_000)] = setting(
        30_000, "The most keys and values of a document, each counted (spec.too_many_nodes)."
    )
    columns: Annotated[Int, Field(ge=1, le=100_000)] = setting(
        5_000,
        "The most columns that a part of a document names (spec.too_many_columns), and that a source has "
        "(source.too_many_columns).",
    )
    steps: Annotated[Int, Field(ge=1, le=10_000)] = setting(
        100, "The most steps of a pipeline's transform (spec.too_many_steps)."
    )
    rules: Annotated[Int, Field(ge=1, le=10_000)] = setting(500, "The most rules of a pipeline (spec.too_many_rules).")
    answer_bytes: Annotated[Int, Field(ge=65_536, le=1_073_741_824)] = setting(
        16 * 1024 * 1024,
        "The most that an answer lists: pages end early, with their cursor, and what has none says how much is left "
        "out.",
    )
    cell_bytes: Annotated[Int, Field(ge=256, le=1_073_741_824)] = setting(
        64 * 1024,
        "The most that a preview or the quarantine shows of one value; the rest is cut from what is shown, and stays "
        "in the row.",
    )
    page_bytes: Annotated[Int, Field(ge=1_048_576, le=2_147_483_647)] = setting(
        256 * 1024 * 1024, "What one page of a Parquet file may be unpacked to (file.page_too_large)."
    )
    footer_bytes: Annotated[Int, Field(ge=65_536, le=1_073_741_824)] = setting(
        16 * 1024 * 1024,
        "What the footer of a Parquet file may have; while it is read it takes up to twenty times its bytes "
        "(file.footer_too_large).",
    )
    file_ratio: Annotated[Int, Field(ge=10, le=1_000_000)] = setting(
        1_000,
        "How many times their own bytes the lists of a Parquet row group may be unpacked to once they are larger "
        "than a page may be (file.ratio). All else of a file is read in parts that fit, however well it is "
        "compressed.",
    )
