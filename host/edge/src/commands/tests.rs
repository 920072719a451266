//! The command line as a whole: what is accepted, and that its help is complete.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn every_command_of_the_guide_is_accepted() {
    for line in [
        "edge tenant create --slug a --organization A --email a@a.example --plan team",
        "edge tenant create --slug a --organization A --display-name B --email a@a.example \
         --plan team --residency us --parent p --idempotency-key k --json",
        "edge tenant show a --server http://127.0.0.1:1",
        "edge tenant --server https://control.example show 0190a8f0-0000-7000-8000-000000000000",
        "edge tenant list --status trial --plan team --all",
        "edge tenant list --limit 500",
        "edge tenant suspend a --reason abuse",
        "edge tenant resume a",
        "edge tenant set a --plan team --quota max_users=12 --quota max_projects= \
         --attribute k=v --name A --if-version 3",
        "edge tenant move a --parent b",
        "edge tenant move a --root",
        "edge tenant usage a",
        "edge tenant trends a --period 30d --metrics api_calls,storage",
        "edge tenant trends a --buckets",
        "edge tenant alerts a",
        "edge tenant alerts a --events --limit 7",
        "edge tenant health a",
        "edge tenant hierarchy a",
        "edge tenant keys issue a --expires 90d",
        "edge tenant keys list a",
        "edge tenant keys revoke a 0123456789ab",
        "edge token issue --role tenant-admin --tenant a --name ops --expires 90d",
        "edge token issue --role service --tenant a --scope usage:read --scope keys:read",
        "edge token list",
        "edge token list --tenant a --token-file t",
        "edge token rotate x --tenant a --overlap 24h",
        "edge token revoke x",
        "edge audit verify",
        "edge audit verify --tenant a --through 7:ab --json",
        "edge migrate --dry-run --json --config edge.toml",
        "edge check",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for line in [
        "edge",
        "edge tenant",
        "edge tenant create --slug a",
        "edge tenant set a",
        "edge tenant set a --quota max_users",
        "edge tenant set a --quota max_users=many",
        "edge tenant move a",
        "edge tenant move a --root --parent b",
        "edge tenant list --all --limit 3",
        "edge tenant list --limit 0",
        "edge tenant show a --server localhost:9080",
        "edge tenant show a --token x --token-file y",
        "edge token issue",
        "edge token issue --role service --expires soon",
        "edge audit verify --through 7",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}");
    }
}

#[test]
fn a_token_given_on_the_command_line_is_in_no_debug_output() {
    let cli = parse("edge tenant list --token hunter2").expect("a command");
    assert!(!format!("{cli:?}").contains("hunter2"));
}

#[test]
fn every_command_and_every_option_is_explained() {
    fn check(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} says nothing about itself");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {}", argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    let mut cli = Cli::command();
    cli.build();
    cli.clone().debug_assert();
    cli.get_subcommands().filter(|command| command.get_name() != "help").for_each(check);
}

#[test]
fn exit_codes_tell_usage_from_refusal_from_silence() {
    let code = |error: ClientError| exit_code(&anyhow::Error::new(error).context("outer"));
    assert_eq!(code(ClientError::Usage(String::new())), ExitCode::from(2));
    let gone = ClientError::Unreachable { server: String::new(), reason: String::new() };
    assert_eq!(code(gone), ExitCode::from(3));
    assert_eq!(code(ClientError::NotTheApi { status: 502 }), ExitCode::FAILURE);
    assert_eq!(exit_code(&anyhow::anyhow!("no")), ExitCode::FAILURE);
}
