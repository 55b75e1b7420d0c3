"""Every public method of a ``litellm.Router``, of all versions this package works with: what calling it can cost.

Those that are governed are the methods of ``CostAwareRouter`` itself. A method that stands nowhere here is new, and
reported as one that can spend until somebody has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping

_IMAGES = "image prices are not governed; give the project a spend limit at the provider"
_AUDIO = "audio prices are not governed; give the project a spend limit at the provider"
_VIDEO = "video prices are not governed; give the project a spend limit at the provider"
_CHAT = "use completion, acompletion, responses, aresponses or anthropic_messages"
_REALTIME = "realtime sessions bill as they run; give the project a spend limit"
_HOSTED = "what a provider stores and searches bills by the day or the call; give the project a spend limit"
_MACHINERY = "it is LiteLLM's own machinery around a call; use the method that it serves"
_SEARCH = "searches are not governed"
_DOCUMENTS = "document reading is not governed"

_SPENDING: Mapping[str, str] = {
    _IMAGES: """
    image_generation aimage_generation aimage_edit
    """,
    _AUDIO: """
    atranscription aspeech
    """,
    _VIDEO: """
    avideo_generation video_generation avideo_remix video_remix avideo_edit video_edit avideo_extension
    video_extension avideo_create_character video_create_character
    """,
    _CHAT: """
    text_completion atext_completion aadapter_completion acompact_responses agenerate_content generate_content
    agenerate_content_stream generate_content_stream aadapter_generate_content allm_passthrough_route
    acreate_interaction create_interaction arun_thread adecisions decisions asystemone systemone aextraction
    extraction aguardrail acreate_agent create_agent
    """,
    _REALTIME: """
    _arealtime acreate_realtime_client_secret acreate_realtime_transcription_session
    acreate_realtime_translation_client_secret arealtime_calls arealtime_translation_calls
    """,
    _HOSTED: """
    acreate_container create_container avector_store_create vector_store_create avector_store_search
    vector_store_search avector_store_file_create vector_store_file_create
    """,
    _MACHINERY: """
    make_call factory_function function_with_fallbacks async_function_with_fallbacks
    async_function_with_fallbacks_common_utils async_function_with_retries retry_stream recover_stream
    recover_stream_sync
    """,
    _SEARCH: "asearch search",
    _DOCUMENTS: "aocr ocr",
    "reranking is not governed": "arerank",
    "use the provider's SDK, wrapped: its batches.create reserves the whole batch": "acreate_batch",
    "training is billed by the job; give the project a spend limit": "acreate_fine_tuning_job",
    "use aresponses": "_aresponses_websocket",
}
UNGOVERNED: Mapping[str, str] = {name: advice for advice, names in _SPENDING.items() for name in names.split()}
"""Methods that can spend and are not governed, and what to do instead of calling them."""

NEW = "this version of llm_cost_middleware does not know it, and it may spend"
"""The advice for a method that stands nowhere here."""

_COSTS_NOTHING = """
    aapply add_deployment add_optional_pre_call_checks apply apply_default_settings are_all_deployments_blocked
    arefresh_model_info arm_routing_read_prefetch async_admit_deployment_turn async_callback_filter_deployments
    async_deployment_callback_on_failure async_get_available_deployment
    async_get_available_deployment_for_pass_through async_get_fully_unhealthy_model_names
    async_get_healthy_deployments async_pre_routing_hook async_routing_strategy_pre_call_checks
    auto_router_capability_violation available_guardrail bind_to_request_logging blocked_failure_exempt build
    cached_deployment_model_info cached_model_group_info config_deployments cooldown_event
    cooldown_event_on_own_loop cooled_down count_realtime_session_success delete_deployment
    deployment_callback_on_failure deployment_callback_on_success deployment_is_active_for_environment
    deployment_tracks_usage deployment_usable_by_team deployments_for_request deployments_named failure_exits
    flush_cache from_config generate_model_id get_all_deployments get_allowed_fails_from_policy
    get_available_deployment get_available_deployment_for_pass_through get_available_guardrail
    get_candidate_model_ids_for_route get_configured_display_name get_configured_mode get_configured_service_tiers
    get_configured_token_limits get_credential_deployment get_deployment get_deployment_by_model_group_name
    get_deployment_credentials get_deployment_credentials_with_provider get_deployment_model_info
    get_discovered_model_info get_fully_blocked_model_names get_model_access_groups get_model_from_alias
    get_model_group get_model_group_info get_model_group_io_token_usage get_model_group_usage get_model_ids
    get_model_info get_model_list get_model_list_from_model_alias get_model_list_from_routing_groups
    get_model_list_of_routed_group get_model_listing_info get_model_names get_num_retries_from_retry_policy
    get_remaining_model_group_usage get_routable_deployments get_routable_upstream_model
    get_router_deployment_budget_limiter get_router_model_info get_routing_group get_search_tool_support
    get_settings get_valid_args has_model_id health increment_deployment_usage_for_response
    init_adaptive_router_deployment init_auto_router_deployment init_complexity_router_deployment
    init_quality_router_deployment initialize_assistants_endpoint initialize_router_endpoints io_token_usage_sync
    is_deployment_blocked is_model_access_group_for_wildcard_route is_recognized_model log_retry map_team_model
    observe outcome_callbacks params_sent_to_deployment per_user_deployment print_deployment priority_header_update
    python_cooldown ran_as_request_deployment register_plugin registry repin_after_success
    replay_model_cost_registrations report_stream_failure report_stream_failure_sync report_stream_success
    report_stream_success_sync reset resolve_model_name_from_model_id resolve_served_model_name
    resolved_litellm_models retire_routing_state routable_model_group routed_name routing_group_has_alternatives
    routing_strategy_init routing_strategy_pre_call_checks run_routing_cache_sync select
    serve_through_request_logging served_openai_models service_logged set_custom_routing_strategy set_model_list
    set_optional_pre_call_checks set_response_headers settings settings_dict should_include_deployment
    should_retry_this_error split_request_priority stream_policy sync_deployment_callback_on_success
    team_model_has_alternatives team_ptu_ceiling team_public_model_names_of track_deployment_pick
    trigger_fallback_cooldown update_redis_cache update_settings upsert_deployment validate_fallbacks
    wildcard_route_deployments wildcard_routed_models

    a_add_message acancel_batch acancel_fine_tuning_job acancel_interaction acancel_responses acreate_assistants
    acreate_file acreate_skill acreate_thread adelete_agent adelete_assistant adelete_container
    adelete_container_file adelete_interaction adelete_responses adelete_skill afile_content afile_delete afile_list
    aget_agent aget_assistants aget_interaction aget_messages aget_responses aget_skill aget_thread
    alist_agent_versions alist_agents alist_batches alist_container_files alist_containers alist_fine_tuning_jobs
    alist_input_items alist_skills amoderation aretrieve_batch aretrieve_container aretrieve_container_file
    aretrieve_container_file_content aretrieve_fine_tuning_job aupload_container_file avector_store_delete
    avector_store_file_content avector_store_file_delete avector_store_file_list avector_store_file_retrieve
    avector_store_file_update avector_store_list avector_store_retrieve avector_store_update avideo_content
    avideo_get_character avideo_list avideo_status cancel_interaction delete_agent delete_container
    delete_container_file delete_interaction get_agent get_interaction list_agent_versions list_agents
    list_container_files list_containers retrieve_container retrieve_container_file retrieve_container_file_content
    upload_container_file vector_store_delete vector_store_file_content vector_store_file_delete
    vector_store_file_list vector_store_file_retrieve vector_store_file_update vector_store_list
    vector_store_retrieve vector_store_update video_content video_get_character video_list video_status
"""
HARMLESS = frozenset(_COSTS_NOTHING.split())
"""Methods that cost nothing: a router's settings, names and picks; and the free requests to a provider."""
CARRYING = frozenset(
    [
        "acreate_file",
        "amoderation",
        "a_add_message",
        "acreate_thread",
        "acreate_assistants",
        "acreate_skill",
        "aupload_container_file",
    ]
)
"""Those of them that send what its owner may want to keep in a region."""
RETRIEVING = frozenset({"aget_responses", "acancel_responses"})
"""Those of them whose answer may bring the bill of an earlier call."""
