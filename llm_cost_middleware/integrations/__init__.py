"""Hosts, one package each: LangChain, LiteLLM, and the SDKs of the providers. They do not know each other.

What a new host must do:

1. Take ``pipeline: CostPipeline | CostConfig | None`` in every entry and resolve it with ``CostPipeline.resolve``.
2. Read a call into a ``CallRequest`` without changing it (``convert.py``): messages, tools, schema, the output cap only
   where the caller set one, ``pinned`` where he chose the model, and the context that ``read_context`` makes of the
   host's metadata under ``llm_cost``.
3. Hand it to ``pipeline.run`` or ``arun`` with a ``send`` that makes exactly one request of an ``Attempt``: its target,
   its cap, its timeout, its cache plan, written on copies; foreign cache marks left out; every retry of the SDK and of
   the host switched off.
4. Return ``CallResult(response, reading)``, or a ``CallStream`` whose ``reading()`` is right at any moment; ask for the
   usage of streams where it must be asked for. Where an error belongs to an answer that was billed, give it
   to ``usage.attach_usage``.
5. Name in ``providers`` what ``send`` can really reach.
6. Report what cannot be governed through ``pipeline.ungoverned``; where a listener can only veto and meter, use
   ``pipeline.authorize`` and end what it returns.
7. Raise refusals as the host's own kind of error that it does not retry.
8. Import the host inside the package only, so that nothing else loads it.

Prove it with the host's real client against ``llm_cost_middleware.simulator``: for every way of calling and every way
of ending, requests, rows and bill agree and nothing stays reserved; in a race exactly what fits is sent.
``tests/integrations/langchain/test_matrix.py`` and ``test_race.py`` are written to be copied.
"""
