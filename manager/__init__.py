"""A level-triggered controller framework for Kubernetes, in asyncio.

In: the API server's lists and watches. Out: calls of reconcilers, each with the key of one object that may not be
as it should be. It knows no custom resource and no cloud. The parts, in the order in which an event meets them:
``reflector`` and ``store`` (a true local copy), ``informer`` and ``cache`` (who hears of changes), ``sources``,
``predicates`` and ``handlers`` (what makes work), ``queue`` (what is next), ``controller`` (what follows from an
outcome), ``manager`` (start, stop, leadership, probes, metrics).
"""
