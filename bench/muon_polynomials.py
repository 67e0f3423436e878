"""The polynomials of Muon's iterations (crates/kernels/src/muon.rs), after Amsel et al., 2025, "The Polar Express".

Each is the odd polynomial of degree 5 that is nearest to 1 on what the last has made of the singular values, found by
Remez's exchange: at the best one, the error is as large at four points, with signs in turn.

    python bench/muon_polynomials.py [LOWEST [ITERATIONS]]      (numpy)
"""

import sys

import numpy as np

# So small a share of the largest singular value is not cared for, lest small ones above it stay behind.
CUSHION = 0.02


def nearest_to_one(low, high):
    """The polynomial (a, b, c), and its error."""
    points = low + (high - low) * np.array([0.0, 0.3, 0.7, 1.0])
    for _ in range(200):
        system = [[x, x**3, x**5, (-1) ** i] for i, x in enumerate(points)]
        a, b, c, error = np.linalg.solve(system, np.ones(4))
        extremes = np.roots([5 * c, 0, 3 * b, 0, a])
        inside = sorted(x.real for x in extremes if abs(x.imag) < 1e-12 and low < x.real < high)
        if len(inside) != 2:
            break
        last, points = points, np.array([low, *inside, high])
        if np.allclose(last, points, rtol=1e-14, atol=0):
            break
    return np.array([a, b, c]), abs(error)


def polynomials(low, iterations):
    """The polynomials for singular values from `low` to 1, and where these end."""
    high, found = 1.0, []
    for _ in range(iterations):
        p, error = nearest_to_one(max(low, CUSHION * high), high)
        low, high = p @ [low, low**3, low**5], 1 + error
        # Around 1 again, where the lowest were not cared for.
        centre = 2 / (low + high)
        p, low, high = p * centre, low * centre, high * centre
        found.append(p)
    return found, (low, high)


lowest = float(sys.argv[1]) if len(sys.argv) > 1 else 0.003
found, (low, high) = polynomials(lowest, int(sys.argv[2]) if len(sys.argv) > 2 else 4)
for p in found:
    print("[" + ", ".join(f"{x:.4f}" for x in p) + "]")
print(f"[{lowest}, 1] -> [{low:.3f}, {high:.3f}]; smaller ones x {np.prod([p[0] for p in found]):.0f}")
