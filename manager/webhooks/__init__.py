"""Admission and conversion webhooks: the server, the reviews, and adapters for validators and defaulters.

A program that validates, completes and converts its kind, with certificates that look after themselves::

    class Rules:
        def validate_create(self, obj, request):
            if not obj["spec"].get("title"):
                raise Denied("spec.title: give the page a title")
            return ["long titles look odd"] if len(obj["spec"]["title"]) > 60 else None

        def validate_update(self, old, new, request):
            return self.validate_create(new, request)

        def validate_delete(self, obj, request):
            return None

        def default(self, obj, request):
            obj["spec"].setdefault("theme", "plain")
            return obj

    rotator = Rotator(
        manager.live,
        namespace="websites",
        secret="webhook-certs",
        dns_names=["webhooks.websites.svc"],
        targets=[validating("websites"), mutating("websites"), crd_conversion("websites.example.com")],
    )
    server = WebhookServer(certificate=rotator.serving, registry=manager.metrics)
    server.validate(WEBSITES, Rules())
    server.default(WEBSITES, Rules())
    manager.add(rotator.run, name="certificates", needs_leader=False)
    manager.add(server.run, name="webhooks", needs_leader=False)
    manager.add_readyz("certificates", rotator.check)
    manager.add_readyz("webhooks", server.started)

``admission`` has the protocols, ``review`` the requests, responses and ``Denied``, ``conversion.Conversions``
translates between versions, ``manager.certs.rotator`` and ``manager.certs.injection`` have the rest. Without a
rotator the server follows ``tls.crt`` and ``tls.key`` in a folder. ``manager.testing.webhooks`` lets an API server
on this machine call it all.
"""
