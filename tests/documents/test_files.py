"""Files of documents: which there are, and that the same document gives the same bytes."""

import pytest

from reports.documents import files_of
from reports.documents.raw import document_of
from tests.documents.examples import ALL


@pytest.mark.parametrize("name", ALL)
def test_a_document_gives_the_same_files_whenever(name: str) -> None:
    document = ALL[name]()
    files = files_of(document)
    assert files_of(document_of(files["json"])) == files
    is_einvoice = document.kind != "statement" and document.number is not None
    assert set(files) == {"json", "csv", "pdf"} | ({"xml", "ubl.xml"} if is_einvoice else set())
    assert files["pdf"].startswith(b"%PDF-1.7")
