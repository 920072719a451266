//! As much of Gherkin as the test-bed uses: backgrounds, outlines with tagged examples,
//! tables under steps.

/// A row of cells.
pub(super) type Row = Vec<String>;

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Without its keyword.
    pub(super) text: String,
    /// Below it; the first row is the head.
    pub(super) table: Vec<Row>,
}

/// One scenario, or one example of an outline.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// Feature, scenario and example.
    pub(super) name: String,
    /// Those of the feature, the scenario and the examples.
    pub(super) tags: Vec<String>,
    /// The background's first.
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Feature,
    Background,
    Scenario,
    Examples,
}

#[derive(Default)]
struct Examples {
    tags: Vec<String>,
    rows: Vec<Row>,
}

struct Reader {
    feature: String,
    feature_tags: Vec<String>,
    background: Vec<Step>,
    current: Option<Scenario>,
    examples: Vec<Examples>,
    done: Vec<Scenario>,
}

/// All scenarios of a feature, outlines expanded.
pub(super) fn parse(text: &str) -> Vec<Scenario> {
    let mut reader = Reader {
        feature: String::new(),
        feature_tags: Vec::new(),
        background: Vec::new(),
        current: None,
        examples: Vec::new(),
        done: Vec::new(),
    };
    let (mut place, mut tags) = (Place::Feature, Vec::new());
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        place = reader.line(line, place, &mut tags);
    }
    reader.finish();
    reader.done
}

impl Reader {
    fn line(&mut self, line: &str, place: Place, tags: &mut Vec<String>) -> Place {
        if line.starts_with('@') {
            tags.extend(line.split_whitespace().map(ToOwned::to_owned));
            return place;
        }
        let (keyword, rest) = line.split_once(':').map_or((line, ""), |(k, rest)| (k, rest.trim()));
        match keyword {
            "Feature" => {
                self.feature = rest.to_owned();
                self.feature_tags = std::mem::take(tags);
                Place::Feature
            }
            "Background" => Place::Background,
            "Scenario" | "Scenario Outline" => {
                self.finish();
                let mut all = self.feature_tags.clone();
                all.append(tags);
                let name = format!("{} / {rest}", self.feature);
                self.current = Some(Scenario { name, tags: all, steps: self.background.clone() });
                Place::Scenario
            }
            "Examples" => {
                self.examples.push(Examples { tags: std::mem::take(tags), rows: Vec::new() });
                Place::Examples
            }
            _ => {
                self.content(line, place);
                place
            }
        }
    }

    fn content(&mut self, line: &str, place: Place) {
        let steps = match (place, &mut self.current) {
            (Place::Background, _) => &mut self.background,
            (Place::Scenario, Some(scenario)) => &mut scenario.steps,
            (Place::Examples, _) => {
                let examples = self.examples.last_mut().expect("a row follows its Examples");
                examples.rows.push(cells(line));
                return;
            }
            _ => return,
        };
        if line.starts_with('|') {
            steps.last_mut().expect("a table follows a step").table.push(cells(line));
            return;
        }
        let (keyword, text) = line.split_once(' ').expect("a step has a keyword");
        assert!(["Given", "When", "Then", "And", "But"].contains(&keyword), "no step: {line}");
        steps.push(Step { text: text.to_owned(), table: Vec::new() });
    }

    fn finish(&mut self) {
        let Some(scenario) = self.current.take() else { return };
        let examples = std::mem::take(&mut self.examples);
        if examples.is_empty() {
            self.done.push(scenario);
            return;
        }
        for group in &examples {
            let (head, rows) = group.rows.split_first().expect("examples have a head");
            self.done.extend(rows.iter().map(|row| example(&scenario, &group.tags, head, row)));
        }
    }
}

fn example(outline: &Scenario, tags: &[String], head: &Row, row: &Row) -> Scenario {
    let fill = |text: &str| {
        head.iter()
            .zip(row)
            .fold(text.to_owned(), |text, (name, cell)| text.replace(&format!("<{name}>"), cell))
    };
    Scenario {
        name: format!("{} / {}", outline.name, row.join(" | ")),
        tags: outline.tags.iter().chain(tags).cloned().collect(),
        steps: outline
            .steps
            .iter()
            .map(|step| Step { text: fill(&step.text), table: step.table.clone() })
            .collect(),
    }
}

fn cells(line: &str) -> Row {
    let inner =
        line.strip_prefix('|').and_then(|line| line.strip_suffix('|')).expect("a table row");
    inner.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn outlines_become_one_scenario_per_example() {
    let text = "@a\nFeature: F\n Background:\n  Given b\n @s\n Scenario Outline: S\n  When <x> and \"<y>\"\n  Then t\n   | k |\n   | v |\n @e\n  Examples: E\n   | x | y |\n   | 1 |   |\n   | 2 | z |\n Scenario: T\n  Then u\n";
    let got = parse(text);
    assert_eq!(got.len(), 3);
    assert_eq!(got[0].tags, ["@a", "@s", "@e"]);
    let texts: Vec<_> = got[0].steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts, ["b", "1 and \"\"", "t"]);
    assert_eq!(got[1].steps[2].table, [["k"], ["v"]]);
    assert_eq!((got[2].name.as_str(), got[2].tags.len()), ("F / T", 1));
}
