"""What a soak says of its proofs."""

from __future__ import annotations

from pathlib import Path

from soak import figures, outcomes

REPORT = """<testsuites><testsuite>
<testcase classname="e" name="kept" /><testcase classname="e" name="lost"><failure /></testcase>
<testcase classname="e" name="broken"><error /></testcase><testcase classname="e" name="left"><skipped /></testcase>
</testsuite></testsuites>"""


def test_a_proof_that_was_skipped_did_not_hold(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    found = outcomes(report)

    assert found == {"e::kept": "held", "e::lost": "failed", "e::broken": "failed", "e::left": "skipped"}
    assert [(f["name"], f["value"], f["holds"]) for f in figures(found)] == [
        ("soak_proofs", 1, True),
        ("soak_failed", 2, False),
        ("soak_skipped", 1, False),
    ]
    assert [f["holds"] for f in figures({"e::kept": "held", "e::left": "skipped"})] == [True, True, False]
    assert not figures({})[0]["holds"]
