"""Hosts, one package each: LangChain, LiteLLM, and the SDKs of the providers. They do not know each other.

To add a host:

1. Take ``pipeline: PipelineSource | None = None`` in every entry; resolve it with ``CostPipeline.resolve``.
2. Read a call into a ``CallRequest`` without changing it (``convert.py``): messages, tools, schema, the output cap only
   where the caller set one, ``model_pinned`` where the caller chose the model, and the context that ``read_context``
   makes of the host's metadata under ``llm_cost``.
3. Write one ``HostCall`` (``host.py``) and hand it to ``host.invoke`` or ``ainvoke`` with the function that sends. It
   sends exactly one request per attempt: the attempt's target, cap, timeout and cache plan, written on copies; cache
   marks of other providers left out; every retry of the SDK and of the host switched off. A host that routes in one
   place and sends in another passes what ``pipeline.prepare`` returned to ``invoke`` as ``prepared``.
4. Read the usage of every answer, of streams at any moment (``ObservedStream``), and of an error that came instead of
   an answer that was billed (``billed_usage``; without a ``HostCall`` ``usage.attach_usage``). Ask for the usage of
   streams where it is only reported on request.
5. Name in ``providers`` what the host can really reach with the call.
6. Report what cannot be governed through ``pipeline.ungoverned``. Where the host sends by itself and can only be vetoed
   and metered, use ``pipeline.authorize`` and end what it returns.
7. Raise refusals as the host's own kind of error, one that it does not retry.
8. Import the host inside the package only, so that nothing else loads it.
9. Give it a door in ``cli/doors.py``, a line in the README and, if it is optional, an extra in ``pyproject.toml``.

Prove it with the host's real client against ``llm_cost_middleware.simulator``: for every way of calling and every way
of ending, requests, rows and bill agree and nothing stays reserved; in a race exactly what fits is sent.
``tests/integrations/langchain/test_matrix.py`` and ``test_race.py`` are written to be copied.

Forgotten steps fail in ``tests/integrations/test_hosts.py`` (1, 9, and a host without tests of its own),
``tests/test_house_rules.py`` (8), ``tests/test_extras.py`` (9) and in the copies of those two files (2 to 7).
"""
