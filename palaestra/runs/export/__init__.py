"""Exports: a trained agent as one folder that can be given away, and read back safely.

    folder = write_export(RunFolder.open("demo"))       # palaestra.runs.export.write
    actors = ExportedActors(folder.path)                # palaestra.runs.export.read

The folder has the shape of a model repository: weights, configuration, results, a card, a replay.
"""
