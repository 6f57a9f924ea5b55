"""Sites of well-known structures in their conventional cells, fractional."""

FCC: list[list[float]] = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
ROCK_SALT = [*FCC, [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
DIAMOND = [*FCC, *([x + 0.25 for x in site] for site in FCC)]
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
U = 0.305
RUTILE = [
    [0, 0, 0],
    [0.5, 0.5, 0.5],
    [U, U, 0],
    [1 - U, 1 - U, 0],
    [0.5 + U, 0.5 - U, 0.5],
    [0.5 - U, 0.5 + U, 0.5],
]
