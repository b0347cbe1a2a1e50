"""How fast: workloads, their rooflines, baselines, suites of them all."""
