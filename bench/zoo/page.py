"""docs/networks.md from the rows of the zoo."""


def write_page(rows, config): ...
