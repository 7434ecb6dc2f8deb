"""The program in a tuning pod: from a dataset to an adapter image that inference can load.

It is started as ``kaito tune`` (kaito/commands/tune.py); ``run.py`` is its course, one module a stage beside it.
"""
