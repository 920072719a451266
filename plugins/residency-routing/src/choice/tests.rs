use std::cell::RefCell;

use super::*;

const EU: &[&str] = &["eu-central-1", "eu-west-1"];

#[derive(Default)]
struct Fake {
    headers: RefCell<Vec<(&'static str, &'static [u8])>>,
    country: Option<&'static str>,
    subject: Option<&'static str>,
    residency: &'static [&'static str],
}

impl Fake {
    fn eu(headers: &[(&'static str, &'static str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Self { headers: RefCell::new(headers), residency: EU, ..Self::default() }
    }

    fn from(country: &'static str) -> Self {
        Self { country: Some(country), ..Self::eu(&[]) }
    }

    fn choose(&self, config: &str) -> String {
        let config = Config::read(config).expect("a config");
        let choice = choose(&config, self).expect("a choice");
        let dropped = !self.headers.borrow().iter().any(|(name, _)| *name == "x-region");
        assert!(dropped, "x-region would be forwarded");
        match choice {
            Choice::Stay => "stay".into(),
            Choice::Region(region) => region,
            Choice::Refuse(problem) => {
                assert_eq!(problem.status, 403);
                let body = problem.into_body();
                assert!(body.contains("\"code\":\"residency-refused\""), "{body}");
                format!("refused {body}")
            }
        }
    }
}

impl Request for Fake {
    fn header_values(&self, name: &str) -> Vec<Vec<u8>> {
        let headers = self.headers.borrow();
        headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.to_vec()).collect()
    }
    fn delete_header(&self, name: &str) -> Result<(), String> {
        self.headers.borrow_mut().retain(|(n, _)| *n != name);
        Ok(())
    }
    fn client_country(&self) -> Option<String> {
        self.country.map(Into::into)
    }
    fn subject(&self) -> Option<String> {
        self.subject.map(Into::into)
    }
    fn residency(&self) -> Vec<String> {
        self.residency.iter().map(|region| (*region).to_owned()).collect()
    }
}

#[test]
fn nothing_configured_stays_and_drops_the_operators_header() {
    assert_eq!(Fake::eu(&[("x-region", "eu-west-1")]).choose("{}"), "stay");
}

#[test]
fn the_country_chooses_inside_the_group_only() {
    let config = r#"{"countries":{"IE":"eu-west-1","US":"us-east-1"}}"#;
    assert_eq!(Fake::from("IE").choose(config), "eu-west-1");
    assert_eq!(Fake::from("US").choose(config), "stay");
    assert_eq!(Fake::from("FR").choose(config), "stay");
    assert_eq!(Fake::eu(&[]).choose(config), "stay");
}

#[test]
fn the_operators_header_wins_over_the_country_when_it_is_honoured() {
    let wish =
        |from: &str| format!(r#"{{"region_header_from":{from},"countries":{{"IE":"eu-west-1"}}}}"#);
    let request = || Fake { country: Some("IE"), ..Fake::eu(&[("x-region", "eu-central-1")]) };
    assert_eq!(request().choose(&wish("\"anyone\"")), "eu-central-1");
    assert_eq!(request().choose(&wish("\"nobody\"")), "eu-west-1");
    assert_eq!(request().choose(&wish("[\"ops\"]")), "eu-west-1");
    let ops = Fake { subject: Some("ops"), ..request() };
    assert_eq!(ops.choose(&wish("[\"ops\"]")), "eu-central-1");
}

#[test]
fn a_header_that_names_two_regions_names_none() {
    let twice = Fake::eu(&[("x-region", "eu-west-1"), ("x-region", "eu-central-1")]);
    assert_eq!(twice.choose(r#"{"region_header_from":"anyone"}"#), "stay");
}

#[test]
fn a_wish_outside_the_group_is_ignored_or_refused() {
    let request = || Fake::eu(&[("x-region", "us-east-1")]);
    let config = |outside: &str| {
        format!(
            r#"{{"region_header_from":"anyone","outside":"{outside}","default_region":"eu-west-1"}}"#
        )
    };
    assert_eq!(request().choose(&config("ignore")), "eu-west-1");
    let refused = request().choose(&config("refuse"));
    assert!(refused.contains("\"region\":\"us-east-1\""), "{refused}");
}

#[test]
fn a_default_outside_the_group_is_no_wish() {
    assert_eq!(
        Fake::eu(&[]).choose(r#"{"default_region":"us-east-1","outside":"refuse"}"#),
        "stay"
    );
}

#[test]
fn a_data_class_moves_the_request_to_a_region_that_may_process_it() {
    let config = r#"{"countries":{"DE":"eu-central-1"},"data_classes":{"Health":["eu-west-1"]}}"#;
    let request = |class| Fake { country: Some("DE"), ..Fake::eu(&[("x-data-class", class)]) };
    assert_eq!(request("health").choose(config), "eu-west-1");
    assert_eq!(request("HEALTH").choose(config), "eu-west-1");
    assert_eq!(request("public").choose(config), "eu-central-1");
}

#[test]
fn a_data_class_keeps_a_request_where_it_is_allowed_by_an_explicit_region() {
    let config = r#"{"data_classes":{"health":["eu-west-1","eu-central-1"]}}"#;
    assert_eq!(Fake::eu(&[("x-data-class", "health")]).choose(config), "eu-central-1");
    let anywhere = Fake { residency: &[], ..Fake::eu(&[("x-data-class", "health")]) };
    assert_eq!(anywhere.choose(config), "eu-west-1");
}

#[test]
fn several_data_classes_must_all_allow_the_region() {
    let config = r#"{"data_classes":{"a":["eu-central-1","eu-west-1"],"b":["eu-west-1"],"c":["eu-central-1"]}}"#;
    assert_eq!(Fake::eu(&[("x-data-class", "a, b")]).choose(config), "eu-west-1");
    assert_eq!(
        Fake::eu(&[("x-data-class", "a"), ("x-data-class", "b")]).choose(config),
        "eu-west-1"
    );
    assert!(Fake::eu(&[("x-data-class", "b,c")]).choose(config).starts_with("refused"));
}

#[test]
fn a_data_class_that_may_not_leave_is_refused_with_what_was_asked() {
    let config = r#"{"data_classes":{"swiss":["eu-south-9"]}}"#;
    let refused = Fake::eu(&[("x-data-class", "swiss")]).choose(config);
    assert!(refused.contains(r#""data_classes":["swiss"]"#), "{refused}");
    assert!(refused.contains(r#""regions":["eu-central-1","eu-west-1"]"#), "{refused}");
}

#[test]
fn a_data_class_that_cannot_be_read_is_refused() {
    let request = Fake::eu(&[]);
    request.headers.borrow_mut().push(("x-data-class", b"h\xffalth"));
    let refused = request.choose(r#"{"data_classes":{"health":["eu-west-1"]}}"#);
    assert!(refused.contains("can't be read"), "{refused}");
}
