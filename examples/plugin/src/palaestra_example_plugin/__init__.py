"""An example plug-in for Palaestra: the policy `ema` and the environment `example/CueRecall-v0`."""
