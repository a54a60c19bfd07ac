//! Tools of public MCP servers by name, with the class that we expect and the word that says so.

use crate::call::Risk::{Destructive, Execute, Financial, Read, Write};

use super::*;

/// The words of the reason when no word of the name says what a tool does.
const NO_WORD: &str = "no word";

const GITHUB: &[(&str, Risk, &str)] = &[
    ("get_me", Read, "`get`"),
    ("get_file_contents", Read, "`get`"),
    ("list_commits", Read, "`list`"),
    ("get_commit", Read, "`get`"),
    ("search_code", Read, "`search`"),
    ("list_pull_requests", Read, "`list`"),
    ("get_pull_request_status", Read, "`get`"),
    ("list_workflow_runs", Read, "`list`"),
    ("list_tags", Read, "`list`"),
    ("download_workflow_run_artifact", Read, "`download`"),
    ("list_secret_scanning_alerts", Write, "`secret`"),
    ("create_or_update_file", Write, "`create`"),
    ("create_pull_request", Write, "`create`"),
    ("pull_request_review_write", Write, "`write`"),
    ("add_issue_comment", Write, "`add`"),
    ("push_files", Write, "`push`"),
    ("fork_repository", Write, "`fork`"),
    ("merge_pull_request", Write, "`merge`"),
    ("mark_all_notifications_read", Write, "`mark`"),
    ("delete_file", Destructive, "`delete`"),
    ("cancel_workflow_run", Destructive, "`cancel`"),
    ("run_workflow", Execute, "`run`"),
    ("rerun_failed_jobs", Execute, "`rerun`"),
];

const SLACK: &[(&str, Risk, &str)] = &[
    ("slack_list_channels", Read, "`list`"),
    ("slack_get_channel_history", Read, "`get`"),
    ("conversations_history", Read, "`history`"),
    ("conversations_search_messages", Read, "`search`"),
    ("slack_post_message", Write, "`post`"),
    ("slack_reply_to_thread", Write, "`reply`"),
    ("slack_add_reaction", Write, "`add`"),
];

const STRIPE: &[(&str, Risk, &str)] = &[
    ("retrieve_balance", Read, "`retrieve`"),
    ("list_payment_intents", Read, "`list`"),
    ("list_subscriptions", Read, "`list`"),
    ("list_invoices", Read, "`list`"),
    ("search_stripe_documentation", Read, "`search`"),
    ("create_customer", Write, "`create`"),
    ("create_refund", Financial, "`refund`"),
    ("create_payment_link", Financial, "`payment`"),
    ("create_price", Financial, "`price`"),
    ("finalize_invoice", Financial, "`invoice`"),
    ("cancel_subscription", Financial, "`subscription`"),
    ("update_dispute", Financial, "`dispute`"),
    ("refunds.create", Financial, "`refunds`"),
    ("pay_order", Financial, "`pay`"),
];

const FILES: &[(&str, Risk, &str)] = &[
    ("read_text_file", Read, "`read`"),
    ("read_multiple_files", Read, "`read`"),
    ("list_directory", Read, "`list`"),
    ("directory_tree", Read, "`tree`"),
    ("search_files", Read, "`search`"),
    ("get_file_info", Read, "`get`"),
    ("write_file", Write, "`write`"),
    ("edit_file", Write, "`edit`"),
    ("move_file", Write, "`move`"),
    ("deletefile", Destructive, "`delete`"),
    ("git_status", Read, "`status`"),
    ("git_diff_unstaged", Read, "`diff`"),
    ("git_log", Read, "`log`"),
    ("git_commit", Write, "`commit`"),
    ("git_checkout", Write, "`switch`"),
    ("git_reset", Destructive, "`reset`"),
];

const BROWSER: &[(&str, Risk, &str)] = &[
    ("browser_snapshot", Read, "`snapshot`"),
    ("browser_take_screenshot", Read, "`screenshot`"),
    ("browser_wait_for", Read, "`wait`"),
    ("browser_click", Write, "`click`"),
    ("browser_navigate", Write, "`navigate`"),
    ("browser_press_key", Write, "`press`"),
    ("browser_file_upload", Write, "`upload`"),
    ("browser_handle_dialog", Write, "`handle`"),
    ("browser_drag", Write, NO_WORD),
    ("browser_evaluate", Execute, "`evaluate`"),
    ("browser_run_code", Execute, "`run`"),
    ("browser_install", Execute, "`install`"),
    ("puppeteer_screenshot", Read, "`screenshot`"),
    ("brave_web_search", Read, "`search`"),
    ("fetch", Read, "`fetch`"),
];

const SQL: &[(&str, Risk, &str)] = &[
    ("read_query", Read, "`read`"),
    ("list_tables", Read, "`list`"),
    ("describe_table", Read, "`describe`"),
    ("explain_query", Read, "`explain`"),
    ("write_query", Write, "`write`"),
    ("create_table", Write, "`create`"),
    ("apply_migration", Write, "`apply`"),
    ("append_insight", Write, "`append`"),
    ("drop_table", Destructive, "`drop`"),
    ("reset_branch", Destructive, "`reset`"),
    ("execute_sql", Execute, "`execute`"),
    ("deploy_edge_function", Execute, "`deploy`"),
];

const KUBERNETES: &[(&str, Risk, &str)] = &[
    ("pods_list_in_namespace", Read, "`list`"),
    ("pods_get", Read, "`get`"),
    ("pods_log", Read, "`log`"),
    ("pods_top", Read, "`top`"),
    ("kubectl_describe", Read, "`describe`"),
    ("resources_create_or_update", Write, "`create`"),
    ("resources_scale", Write, "`scale`"),
    ("kubectl_apply", Write, "`apply`"),
    ("port_forward", Write, "`forward`"),
    ("kubectl_generic", Write, NO_WORD),
    ("pods_delete", Destructive, "`delete`"),
    ("helm_uninstall", Destructive, "`uninstall`"),
    ("pods_exec", Execute, "`exec`"),
    ("pods_run", Execute, "`run`"),
    ("exec_in_pod", Execute, "`exec`"),
    ("helm_install", Execute, "`install`"),
];

const EVERYTHING: &[(&str, Risk, &str)] = &[
    ("echo", Read, "`echo`"),
    ("get-sum", Read, "`get`"),
    ("get-tiny-image", Read, "`get`"),
    ("get-resource-links", Read, "`get`"),
    ("get-resource-reference", Read, "`get`"),
    ("get-annotated-message", Read, "`get`"),
    ("get-structured-content", Read, "`get`"),
    ("get-roots-list", Read, "`get`"),
    ("get-env", Write, "`env`"),
    ("gzip-file-as-resource", Write, "`gzip`"),
    ("toggle-simulated-logging", Write, "`toggle`"),
    ("toggle-subscriber-updates", Write, "`toggle`"),
    ("trigger-long-running-operation", Write, "`trigger`"),
    ("trigger-sampling-request", Write, "`trigger`"),
    ("simulate-research-query", Write, "`simulate`"),
];

const OTHERS: &[(&str, Risk, &str)] = &[
    ("execute_command", Execute, "`execute`"),
    ("start_process", Execute, "`process`"),
    ("write_to_terminal", Execute, "`terminal`"),
    ("python", Execute, "`python`"),
    ("read_process_output", Read, "`read`"),
    ("list_processes", Read, "`list`"),
    ("kill_process", Destructive, "`kill`"),
    ("search_nodes", Read, "`search`"),
    ("create_entities", Write, "`create`"),
    ("delete_observations", Destructive, "`delete`"),
    ("send_email", Write, "`send`"),
    ("batch_delete_emails", Destructive, "`delete`"),
    ("jira_transition_issue", Write, "`transition`"),
    ("API-delete-a-block", Destructive, "`delete`"),
    ("sequentialthinking", Write, NO_WORD),
    ("convert_time", Read, "`convert`"),
];

#[test]
fn tools_of_public_servers_are_guessed_right() {
    let all = [
        GITHUB, SLACK, STRIPE, FILES, BROWSER, SQL, KUBERNETES, EVERYTHING, OTHERS,
    ];
    let mut wrong = Vec::new();
    for (name, risk, word) in all.into_iter().flatten() {
        let suggestion = suggest(&tool(&json!({"name": name})));
        if suggestion.risk != *risk || !suggestion.reason.contains(word) {
            let Suggestion { risk, reason, .. } = suggestion;
            wrong.push(format!("{name}: {risk}, {reason}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
