"""Prints what the package and some of its extras need: `requirements.py EXTRA...`, beside pyproject.toml."""

import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in sys.argv[1:])]
print(*(need for needs in lists for need in needs if not need.startswith("telegrad[")), sep="\n")
