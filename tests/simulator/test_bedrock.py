"""Bedrock's runtime, seen through boto3's own client and through the anthropic SDK's."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import anthropic
import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is of the extra aws")
from botocore.config import Config  # noqa: E402 - as above
from botocore.exceptions import ClientError  # noqa: E402 - as above

from llm_cost_middleware.simulator import Answer, Fault, Simulator, ToolCall, auto, fill  # noqa: E402 - as above
from llm_cost_middleware.simulator.bedrock import signing  # noqa: E402 - as above
from llm_cost_middleware.simulator.bedrock.errors import IN_STREAMS, STATUSES  # noqa: E402 - as above

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
LIST_PRICED = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
INVOKED = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50}
WEATHER = {
    "toolSpec": {
        "name": "get_weather",
        "description": "Weather of a city",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
    }
}


def client_of(sim: Simulator, **more):
    known = {
        "region_name": "us-east-1",
        "aws_access_key_id": signing.ACCESS_KEY,
        "aws_secret_access_key": signing.SECRET_KEY,
    }
    config = Config(retries={"max_attempts": 0, "mode": "standard"})
    return boto3.client("bedrock-runtime", endpoint_url=sim.bedrock_url, config=config, **known | more)


@pytest.fixture
def runtime(sim: Simulator) -> Iterator:
    client = client_of(sim)
    yield client
    client.close()


@pytest.fixture
def claude_there(sim: Simulator) -> Iterator[anthropic.AnthropicBedrock]:
    with anthropic.AnthropicBedrock(
        base_url=sim.bedrock_url, aws_region="us-east-1", aws_access_key=signing.ACCESS_KEY,
        aws_secret_key=signing.SECRET_KEY, max_retries=0,
    ) as client:  # fmt: skip
        yield client


def said(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"text": text}]}]


def test_converse_answers_in_its_own_shape_and_the_bill_is_a_tenth_dearer_in_a_geography(sim, runtime):
    dear = runtime.converse(modelId=HAIKU, messages=said("hello there"), inferenceConfig={"maxTokens": 50})
    plain = runtime.converse(modelId=LIST_PRICED, messages=said("hello there"), inferenceConfig={"maxTokens": 50})
    assert dear["output"]["message"]["content"] == [{"text": "You said: hello there"}]
    assert (dear["usage"]["inputTokens"], dear["usage"]["outputTokens"], dear["usage"]["totalTokens"]) == (10, 6, 16)
    assert dear["stopReason"] == plain["stopReason"] == "end_turn"
    # 10 tokens at 1 dollar a million and 6 at 5; a tenth more in a geography
    assert [line.cost_nanousd for line in sim.bill.lines] == [44_000, 40_000]
    assert [exchange.served_by for exchange in sim.requests] == ["bedrock", "bedrock"]


def test_a_stream_of_converse_has_its_usage_in_the_last_event(runtime):
    events = list(
        runtime.converse_stream(modelId=HAIKU, messages=said("hello there"), inferenceConfig={"maxTokens": 50})[
            "stream"
        ]
    )
    assert "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e) == (
        "You said: hello there"
    )
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 6


def test_tools_of_converse_are_called_and_answered(sim, runtime):
    sim.responder = auto
    tools = {"tools": [WEATHER], "toolChoice": {"any": {}}}
    asked = runtime.converse(modelId=HAIKU, messages=said("weather in 'Bern'"), toolConfig=tools)
    call = asked["output"]["message"]["content"][0]["toolUse"]
    assert (asked["stopReason"], call["name"], call["input"]) == ("tool_use", "get_weather", {"city": "Bern"})
    result = {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"json": {"sun": True}}]}}
    messages = [*said("weather in 'Bern'"), asked["output"]["message"], {"role": "user", "content": [result]}]
    told = runtime.converse(modelId=HAIKU, messages=messages, toolConfig={"tools": [WEATHER]})
    assert told["output"]["message"]["content"] == [{"text": 'The tool says: {"sun": true}'}]
    streamed = list(runtime.converse_stream(modelId=HAIKU, messages=said("x"), toolConfig=tools)["stream"])
    arguments = "".join(
        e["contentBlockDelta"]["delta"]["toolUse"]["input"] for e in streamed if "contentBlockDelta" in e
    )
    assert json.loads(arguments) == {"city": "a city"}


def test_cache_points_are_written_and_read_with_their_lifetime_and_counted_apart(runtime):
    def ask(ttl: str | None):
        point = {"cachePoint": {"type": "default"} | ({"ttl": ttl} if ttl else {})}
        system = [{"text": f"{ttl} " + "s" * 20_000}, point]
        return runtime.converse(modelId=HAIKU, messages=said("hi"), system=system)["usage"]

    for ttl in (None, "5m", "1h"):
        first, second = ask(ttl), ask(ttl)
        assert first["cacheDetails"] == [{"ttl": ttl or "5m", "inputTokens": first["cacheWriteInputTokens"]}]
        assert second["cacheReadInputTokens"] == first["cacheWriteInputTokens"] > 5_000
        assert (second["cacheWriteInputTokens"], second["inputTokens"]) == (0, first["inputTokens"])
    short = runtime.converse(
        modelId=HAIKU, messages=said("hi"), system=[{"text": "s" * 8_000}, {"cachePoint": {"type": "default"}}]
    )
    assert short["usage"]["cacheWriteInputTokens"] == 0  # below the 4,096 tokens of Haiku 4.5


def test_five_cache_points_are_too_many_and_one_needs_content_before_it(runtime):
    point = {"cachePoint": {"type": "default"}}
    for content in ([piece for at in range(5) for piece in ({"text": f"{at}"}, point)], [point, {"text": "x"}]):
        with pytest.raises(ClientError) as refused:
            runtime.converse(modelId=HAIKU, messages=[{"role": "user", "content": content}])
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_invoke_wants_its_version_and_neither_model_nor_stream_in_the_body(runtime):
    messages = [{"role": "user", "content": "hello there"}]
    answer = runtime.invoke_model(modelId=HAIKU, body=json.dumps({**INVOKED, "messages": messages}))
    told = json.loads(answer["body"].read())
    assert (told["model"], told["usage"]["input_tokens"]) == ("claude-haiku-4-5-20251001", 10)
    assert "service_tier" not in told["usage"]
    for wrong in ({"max_tokens": 5}, {**INVOKED, "model": "x"}, {**INVOKED, "stream": True}):
        with pytest.raises(ClientError, match="ValidationException"):
            runtime.invoke_model(modelId=HAIKU, body=json.dumps({**wrong, "messages": messages}))


def test_a_stream_of_invoke_ends_in_the_metrics_of_the_invocation(runtime):
    body = json.dumps({**INVOKED, "messages": [{"role": "user", "content": "hello there"}]})
    stream = runtime.invoke_model_with_response_stream(modelId=HAIKU, body=body)["body"]
    events = [json.loads(event["chunk"]["bytes"]) for event in stream]
    assert events[0]["message"]["usage"]["input_tokens"] == 10
    assert events[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 6


def test_the_anthropic_client_is_served_whole_and_streamed(sim, claude_there, user):
    sim.responder = lambda _: Answer(text="well", tool_calls=(ToolCall("look", {"at": "it"}),))
    tools = [{"name": "look", "description": "Looks", "input_schema": {"type": "object"}}]
    asked = {"model": HAIKU, "max_tokens": 50, "messages": user("hello there"), "tools": tools}
    whole = claude_there.messages.create(**asked)
    with claude_there.messages.stream(**asked) as stream:
        built = stream.get_final_message()
    assert [block.type for block in whole.content] == [block.type for block in built.content] == ["text", "tool_use"]
    assert whole.usage.output_tokens == built.usage.output_tokens
    assert len({line.cost_nanousd for line in sim.bill.lines}) == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_access_key_id": "AKIDNOBODY"}, "UnrecognizedClientException"),
        ({"aws_session_token": "old"}, "UnrecognizedClientException"),
    ],
)
def test_another_key_is_refused_as_aws_does(sim, given, code):
    stranger = client_of(sim, **given)
    with pytest.raises(ClientError) as refused:
        stranger.converse(modelId=HAIKU, messages=said("hi"))
    stranger.close()
    assert (refused.value.response["Error"]["Code"], refused.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (
        code, 403,
    )  # fmt: skip
    assert sim.bill.lines == ()


def test_a_body_or_path_changed_after_signing_and_an_old_signature_are_refused(sim):
    import httpx2
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"{sim.bedrock_url}/model/{HAIKU.replace(':', '%3A')}/converse"
    body = json.dumps({"messages": said("hi")}).encode()

    def ask(*, sent: bytes = body, to: str = url, age: timedelta = timedelta(), service: str = "bedrock") -> str:
        request = AWSRequest("POST", url, data=body, headers={"host": f"127.0.0.1:{sim.port}"})
        signer = SigV4Auth(Credentials(signing.ACCESS_KEY, signing.SECRET_KEY), service, "us-east-1")
        request.context["timestamp"] = (datetime.now(UTC) - age).strftime("%Y%m%dT%H%M%SZ")
        signer._modify_request_before_signing(request)  # as add_auth does, but at another time
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
        answer = httpx2.post(to, content=sent, headers=dict(request.headers.items()))
        return answer.headers.get("x-amzn-errortype", "").partition(":")[0]

    assert ask() == ""
    assert ask(sent=body + b" ") == "InvalidSignatureException"
    assert ask(to=url.replace("converse", "converse-stream")) == "InvalidSignatureException"
    assert ask(age=timedelta(minutes=6)) == "InvalidSignatureException"
    assert ask(age=timedelta(minutes=-6)) == "InvalidSignatureException"
    assert ask(service="s3") == "InvalidSignatureException"
    assert len(sim.bill.lines) == 1


def test_a_bearer_token_serves_and_a_wrong_one_does_not(sim, user):
    asked = {"model": HAIKU, "max_tokens": 5, "messages": user("hi")}
    for key, status in ((signing.BEARER_TOKEN, 200), ("other", 403)):
        with anthropic.AnthropicBedrock(
            base_url=sim.bedrock_url, aws_region="us-east-1", api_key=key, max_retries=0
        ) as client:
            if status == 200:
                assert client.messages.create(**asked).usage.output_tokens
            else:
                with pytest.raises(anthropic.PermissionDeniedError):
                    client.messages.create(**asked)


def test_mantle_speaks_messages_under_its_own_signing_name(sim, user):
    with anthropic.AnthropicBedrockMantle(
        base_url=f"{sim.bedrock_url}/anthropic", aws_region="us-east-1", aws_access_key=signing.ACCESS_KEY,
        aws_secret_key=signing.SECRET_KEY, max_retries=0,
    ) as client:  # fmt: skip
        asked = {"model": "anthropic.claude-sonnet-5", "max_tokens": 5, "messages": user("hi")}
        assert client.messages.create(**asked).usage.output_tokens
        with client.messages.stream(**asked) as stream:
            stream.until_done()
    assert [(line.geo, line.stream) for line in sim.bill.lines] == [("regional", False), ("regional", True)]


@pytest.mark.parametrize("name", sorted(STATUSES))
def test_each_exception_of_the_service_model_is_raised_by_its_name(sim, runtime, name):
    """The statuses are those of botocore's own copy of the service model."""
    shape = runtime.meta.service_model.shape_for(name)
    assert STATUSES[name][0] == shape.metadata["error"]["httpStatusCode"]
    sim.script(Fault.aws(name))
    with pytest.raises(ClientError) as refused:
        runtime.converse(modelId=HAIKU, messages=said("hi"))
    assert refused.value.response["Error"]["Code"] == name
    assert sim.bill.lines == ()


@pytest.mark.parametrize("name", IN_STREAMS)
def test_an_exception_inside_a_stream_reaches_both_clients(sim, runtime, claude_there, user, name):
    sim.responder = fill
    sim.script(Fault.error_event(after=2, error_type=name))
    body = json.dumps({**INVOKED, "messages": user("hi")})
    with pytest.raises(ClientError) as broken:
        list(runtime.invoke_model_with_response_stream(modelId=HAIKU, body=body)["body"])
    assert broken.value.response["Error"]["Code"] == name
    sim.script(Fault.error_event(after=2, error_type=name))
    with pytest.raises(anthropic.APIStatusError), claude_there.messages.stream(
        model=HAIKU, max_tokens=50, messages=user("hi")
    ) as stream:  # fmt: skip
        stream.until_done()
    assert [line.outcome for line in sim.bill.lines] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("model", "served"),
    [
        ("global.anthropic.claude-opus-5", ""),
        ("us.anthropic.claude-opus-5", "regional"),
        ("anthropic.claude-opus-5", "regional"),
        ("us.anthropic.claude-opus-4-6-v1", "regional"),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-5", "regional"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-opus-5", ""),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", ""),
        ("arn:aws:bedrock:us-east-1:1:provisioned-model/unknown", None),
        ("eu.anthropic.claude-opus-5", None),  # called from us-east-1
        ("anthropic.claude-haiku-4-5-20251001-v1:0", None),  # by profile only
        ("mars.anthropic.claude-opus-5", None),
        ("anthropic.claude-nothing", None),
    ],
)
def test_a_model_is_found_by_every_form_of_its_id(sim, runtime, model, served):
    sim.bedrock.arns["arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"] = "global.anthropic.claude-opus-5"
    if served is None:
        with pytest.raises(ClientError):
            runtime.converse(modelId=model, messages=said("hi"))
    else:
        runtime.converse(modelId=model, messages=said("hi"))
    assert [line.geo for line in sim.bill.lines] == ([] if served is None else [served])


def test_govcloud_costs_a_fifth_more_has_profiles_of_its_own_and_no_global_ones(sim, runtime):
    runtime.converse(modelId=LIST_PRICED, messages=said("hi"))
    client = client_of(sim, region_name="us-gov-west-1")
    for model in ("us-gov.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-opus-5"):
        client.converse(modelId=model, messages=said("hi"))
    for model in (LIST_PRICED, HAIKU):
        with pytest.raises(ClientError, match="ValidationException"):
            client.converse(modelId=model, messages=said("hi"))
    client.close()
    with pytest.raises(ClientError, match="ValidationException"):
        runtime.converse(modelId="us-gov.anthropic.claude-opus-5", messages=said("hi"))
    assert [line.geo for line in sim.bill.lines] == ["", "govcloud", "govcloud"]
    listed, there, _ = sim.bill.lines
    assert there.tokens == listed.tokens
    assert there.cost_nanousd * 5 == listed.cost_nanousd * 6


def test_tiers_and_fields_that_claude_is_not_served_with_are_refused(runtime):
    for more in (
        {"serviceTier": {"type": "flex"}},
        {"performanceConfig": {"latency": "optimized"}},
        {"inferenceConfig": {"maxTokens": 5}, "additionalModelRequestFields": {"max_tokens": 9}},
    ):
        with pytest.raises(ClientError, match="ValidationException"):
            runtime.converse(modelId=HAIKU, messages=said("hi"), **more)
