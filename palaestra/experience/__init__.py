"""The data that every room speaks: fragments, states, recorded episodes, weights. NumPy alone."""
