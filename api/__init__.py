"""The custom resources as data: types, validation, conditions and reasons, catalogues, generated CRDs.

In: plain JSON objects from an API server or a manifest. Out: frozen values, lists of violations, and the
CustomResourceDefinitions themselves. Nothing here does I/O beyond reading the packaged catalogues, keeps
state, reads a clock or knows a cluster. Importing this package costs nothing: pydantic comes with
``api.v1alpha1`` and ``api.v1alpha5``, the catalogues load on the first question.
"""
