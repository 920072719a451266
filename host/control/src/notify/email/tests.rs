use super::*;
use crate::notify::{
    Remedy,
    testing::{MailSink, nobody},
};

fn mail<'a>(to: &'a str, subject: &str) -> Mail<'a> {
    Mail {
        event: Uuid::from_u128(7),
        occurred_at: UnixMs(1_705_314_600_000),
        to,
        notice: Notice { subject: subject.to_owned(), text: "First.\n.\n..Dots.\n".to_owned() },
    }
}

fn mailer(sink: &MailSink) -> Mailer {
    let config = SmtpConfig::new(&sink.url(), "LeanVibe <alerts@edge.example>");
    Mailer::new(Some(&config.expect("a server")))
}

#[tokio::test]
async fn a_mail_arrives_with_its_headers_and_text() {
    let sink = MailSink::start().await;
    mailer(&sink).send(mail("admin@acme.example", "80 % of your quota")).await.expect("sent");
    let [taken] = &sink.taken().clone()[..] else { panic!("one mail") };
    assert_eq!(taken.from, "alerts@edge.example");
    assert_eq!(taken.to, ["admin@acme.example"]);
    for (name, value) in [
        ("From", "LeanVibe <alerts@edge.example>"),
        ("To", "admin@acme.example"),
        ("Subject", "80 % of your quota"),
        ("Date", "Mon, 15 Jan 2024 10:30:00 +0000"),
        ("Auto-Submitted", "auto-generated"),
    ] {
        assert_eq!(taken.header(name).as_deref(), Some(value), "{name} in {}", taken.data);
    }
    let (_, text) = taken.data.split_once("\r\n\r\n").expect("a text");
    assert_eq!(text.trim_end(), "First.\r\n.\r\n..Dots.");
}

#[tokio::test]
async fn a_redelivery_is_the_same_message_and_another_recipients_is_not() {
    let sink = MailSink::start().await;
    let mailer = mailer(&sink);
    for to in ["a@acme.example", "a@acme.example", "b@acme.example"] {
        mailer.send(mail(to, "x")).await.expect("sent");
    }
    let taken = sink.taken().clone();
    assert_eq!(taken[0].data, taken[1].data);
    let ids: Vec<_> = taken.iter().map(|mail| mail.header("Message-ID").expect("an id")).collect();
    assert_ne!(ids[0], ids[2]);
    assert!(ids[0].starts_with("<00000000-0000-0000-0000-000000000007."), "{ids:?}");
    assert!(ids[0].ends_with("@edge.example>"), "{ids:?}");
}

#[tokio::test]
async fn nothing_breaks_out_of_a_header() {
    let sink = MailSink::start().await;
    let mailer = mailer(&sink);
    mailer.send(mail("a@acme.example", "x\r\nBcc: b@acme.example")).await.expect("sent");
    let taken = sink.taken().clone();
    assert_eq!((taken[0].to.len(), taken[0].header("Bcc")), (1, None), "{}", taken[0].data);
    for to in ["a@acme.example\r\nRCPT TO:<b@acme.example>", "a@acme.example>, <b@x", "a", ""] {
        let failure = mailer.send(mail(to, "x")).await.expect_err("no address");
        assert_eq!(failure.remedy, Remedy::None, "{to:?}");
    }
    assert_eq!(sink.taken().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words_and_lasts_when_it_says_so() {
    let sink = MailSink::start().await;
    let mailer = mailer(&sink);
    for (reply, remedy, said) in [
        ("550 5.1.1 no such user", Remedy::None, "no such user"),
        ("451 4.7.1 try later", Remedy::Again, "try later"),
        ("535 5.7.8 wrong password of edge", Remedy::Again, "this installation's login"),
    ] {
        sink.answer(reply);
        let failure = mailer.send(mail("a@acme.example", "x")).await.expect_err("refused");
        assert_eq!(failure.remedy, remedy, "{failure:?}");
        assert!(failure.reason.contains(said), "{failure:?}");
    }
    assert_eq!(sink.taken().len(), 0);
}

#[tokio::test]
async fn without_a_server_the_reason_says_what_to_set() {
    let failure = Mailer::new(None).send(mail("a@acme.example", "x")).await.expect_err("no server");
    let reason = "no SMTP server is configured: set control.smtp.url".to_owned();
    assert_eq!(failure, Failure { reason, remedy: Remedy::None });
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again_and_not_named() {
    let url = format!("smtp://{}", nobody());
    let config = SmtpConfig::new(&url, "alerts@edge.example").expect("a server");
    let mailer = Mailer::new(Some(&config));
    let failure = mailer.send(mail("a@acme.example", "x")).await.expect_err("nobody there");
    let reason = "the mail server cannot be reached".to_owned();
    assert_eq!(failure, Failure { reason, remedy: Remedy::Again });
}
