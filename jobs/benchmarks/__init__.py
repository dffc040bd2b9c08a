"""The benchmarks: each module measures one thing against its rivals, side by side, in alternating runs."""
