"""law.json, the file of a fitted law: all that its predictions depend on."""

from pathlib import Path
from typing import Any

from autoscale_exp.base.errors import UserError
from autoscale_exp.base.versioned import read_versioned, write_versioned
from autoscale_exp.laws.law import Law, law_class

FORMAT = 5
LAW = "law.json"
REMEDY = "give the law.json of a fit, or fit the runs again"


def write_law(folder: Path, content: dict[str, Any]) -> None:
    """Writes a law's content."""
    write_versioned(folder / LAW, content, FORMAT)


def read_law(path: Path) -> Law:
    """Reads the law in a file.

    Raises:
        UserError: the file is missing, damaged or of another format, or holds a path through given optima.
    """
    content = read_versioned(path, FORMAT, REMEDY)
    if content.get("law") == "autoscale_path":
        raise UserError(f"'{path}' was fitted to given optima and predicts no losses; give one made with runs=...")
    law = law_class(str(content.get("law")))
    try:
        return law.from_content(content)
    except (KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged ({error}); {REMEDY}") from None
