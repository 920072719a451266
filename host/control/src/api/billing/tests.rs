use std::sync::Arc;

use serde_json::{Value, json};

use crate::testing::{Answer, Backend, Control, on_both, path_of, tenant};

on_both![
    the_guides_document_is_stored_and_answered_as_it_came,
    all_that_is_wrong_with_a_document_is_named_at_once,
    a_document_for_later_is_shown_as_upcoming,
    the_lines_of_an_invoice_add_up_in_json_and_csv,
    an_invoice_is_issued_once_and_only_for_a_month_that_is_over,
    a_child_sees_its_own_line_and_nothing_else_of_the_bill,
    a_tenant_with_a_share_is_not_moved_out,
    who_may_read_settle_and_issue,
];

const DAY_MS: u64 = 86_400_000;

struct Corporation {
    control: Control,
    parent: Value,
    children: Vec<Value>,
}

/// A parent and three children who owe 100.01 together.
async fn corporation(on: Backend) -> Corporation {
    let control = Control::start(on).await;
    control.catalog.send_modify(|catalog| {
        let mut priced = (**catalog).clone();
        for (name, minor) in [("enterprise", 5_001), ("team", 2_500), ("developer", 0)] {
            let plan = priced.plans.get_mut(name).map(Arc::make_mut).expect("a plan");
            let price = json!({"currency": "USD", "monthly_minor": minor});
            plan.price = Some(serde_json::from_value(price).expect("a price"));
        }
        *catalog = priced.into();
    });
    let parent = active(&control, "global-corp", "enterprise", &Value::Null).await;
    let mut children = Vec::new();
    for (slug, plan) in [("child-1", "team"), ("child-2", "team"), ("child-3", "developer")] {
        children.push(active(&control, slug, plan, &parent["id"]).await);
    }
    Corporation { control, parent, children }
}

async fn active(control: &Control, slug: &str, plan: &str, parent: &Value) -> Value {
    let mut new = tenant(slug);
    new["plan"] = plan.into();
    new["organization_name"] = format!("{slug}, Inc.").into();
    new["parent_tenant_id"] = parent.clone();
    let created = control.create(&new).await;
    control.patch(&created, &json!({"status": "active"})).await;
    created
}

impl Corporation {
    fn path(&self, tenant: &Value, rest: &str) -> String {
        format!("/api/v1/tenants/{}/billing{rest}", tenant["id"].as_str().expect("an id"))
    }

    /// The guide's document.
    fn document(&self, percentages: [f64; 3]) -> Value {
        let number = |percent: f64| match percent.fract() == 0.0 {
            true => json!(percent as u64),
            false => json!(percent),
        };
        let share = |(child, percent): (&Value, f64)| json!({"tenant_id": child["id"], "cost_allocation_percentage": number(percent)});
        json!({
            "billing_consolidation": {
                "parent_tenant_id": self.parent["id"],
                "child_tenants":
                    self.children.iter().zip(percentages).map(share).collect::<Vec<_>>(),
                "consolidated_invoicing": true,
                "shared_quotas": false,
            }
        })
    }

    async fn put(&self, document: &Value) -> Answer {
        self.control.json("PUT", &self.path(&self.parent, ""), document).await
    }

    async fn invoice(&self, tenant: &Value, query: &str) -> Answer {
        self.control.get(&self.path(tenant, &format!("/invoices{query}"))).await
    }

    async fn issue(&self, tenant: &Value, period: &str) -> Answer {
        let path = self.path(tenant, "/invoices");
        self.control.json("POST", &path, &json!({"period": period})).await
    }

    async fn token(&self, tenant: &Value, role: &str) -> String {
        let path = format!("/api/v1/tenants/{}/tokens", tenant["id"].as_str().expect("an id"));
        let body = json!({"role": role, "name": "t"});
        let answer = self.control.json("POST", &path, &body).await;
        answer.json["token"].as_str().expect("a token").to_owned()
    }
}

async fn the_guides_document_is_stored_and_answered_as_it_came(on: Backend) {
    let corporation = corporation(on).await;
    let empty = corporation.control.get(&corporation.path(&corporation.parent, "")).await;
    assert_eq!(empty.json["billing_consolidation"], Value::Null);
    for percentages in [[40.0, 35.0, 25.0], [33.33, 33.33, 33.34], [0.01, 99.9, 0.09]] {
        corporation.control.clock.advance_ms(1_000);
        let document = corporation.document(percentages);
        let answer = corporation.put(&document).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let shown = &answer.json["billing_consolidation"];
        assert_eq!(shown.to_string(), document["billing_consolidation"].to_string());
        let read = corporation.control.get(&corporation.path(&corporation.parent, "")).await;
        assert_eq!(read.json, answer.json);
    }
    let read = corporation.control.get(&corporation.path(&corporation.parent, "")).await;
    assert_eq!(read.json["effective_from"], "2024-01-01T00:00:03Z");
    let past = read.json["past"].as_array().expect("past");
    assert_eq!(past.len(), 2);
    assert_eq!(past[0]["effective_from"], "2024-01-01T00:00:02Z");
}

async fn all_that_is_wrong_with_a_document_is_named_at_once(on: Backend) {
    let corporation = corporation(on).await;
    let short = corporation.put(&corporation.document([40.0, 35.0, 24.0])).await;
    assert_eq!(short.bad_fields(), ["billing_consolidation.child_tenants"]);
    assert!(short.text.contains("they sum to 99.00"), "{}", short.text);
    let stranger = corporation.control.create(&tenant("stranger")).await;
    let own = &corporation.children[0]["id"];
    let wrong = json!({
        "effective_from": "tomorrow",
        "colour": "red",
        "billing_consolidation": {
            "parent_tenant_id": own,
            "child_tenants": [
                {"tenant_id": own, "cost_allocation_percentage": 33.333},
                {"tenant_id": stranger["id"], "cost_allocation_percentage": 10},
                {"tenant_id": own, "cost_allocation_percentage": "10", "name": "x"},
                {"cost_allocation_percentage": -1},
                7,
            ],
            "shared_quotas": "no",
        },
    });
    let answer = corporation.put(&wrong).await;
    let mut named = answer.bad_fields();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "billing_consolidation.child_tenants[0].cost_allocation_percentage",
            "billing_consolidation.child_tenants[1].tenant_id",
            "billing_consolidation.child_tenants[2].cost_allocation_percentage",
            "billing_consolidation.child_tenants[2].name",
            "billing_consolidation.child_tenants[3].cost_allocation_percentage",
            "billing_consolidation.child_tenants[3].tenant_id",
            "billing_consolidation.child_tenants[4]",
            "billing_consolidation.consolidated_invoicing",
            "billing_consolidation.parent_tenant_id",
            "billing_consolidation.shared_quotas",
            "colour",
            "effective_from",
        ]
    );
    let twice = json!({"billing_consolidation": {
        "child_tenants": [
            {"tenant_id": own, "cost_allocation_percentage": 50},
            {"tenant_id": own, "cost_allocation_percentage": 50},
        ],
        "consolidated_invoicing": true,
    }});
    let named = corporation.put(&twice).await;
    assert_eq!(named.bad_fields(), ["billing_consolidation.child_tenants"]);
    let nobody = json!({"billing_consolidation": {"consolidated_invoicing": true}});
    let named = corporation.put(&nobody).await;
    assert_eq!(named.bad_fields(), ["billing_consolidation.child_tenants"]);
    let mut past = corporation.document([40.0, 35.0, 25.0]);
    past["effective_from"] = "2023-12-31T23:59:59Z".into();
    assert_eq!(corporation.put(&past).await.bad_fields(), ["effective_from"]);
    assert_eq!(corporation.put(&json!({})).await.bad_fields(), ["billing_consolidation"]);
    let read = corporation.control.get(&corporation.path(&corporation.parent, "")).await;
    assert_eq!(read.json["billing_consolidation"], Value::Null, "nothing was stored");
}

async fn a_document_for_later_is_shown_as_upcoming(on: Backend) {
    let corporation = corporation(on).await;
    corporation.put(&corporation.document([40.0, 35.0, 25.0])).await;
    let mut later = corporation.document([20.0, 30.0, 50.0]);
    later["effective_from"] = "2024-02-10T00:00:00Z".into();
    let answer = corporation.put(&later).await.json;
    let share = |shown: &Value| {
        shown["billing_consolidation"]["child_tenants"][0]["cost_allocation_percentage"].clone()
    };
    assert_eq!(share(&answer), 40);
    assert_eq!(share(&answer["upcoming"][0]), 20);
    corporation.control.clock.advance_ms(41 * DAY_MS);
    let january = corporation.invoice(&corporation.parent, "?period=2024-01").await.json;
    assert_eq!(january["line_items"][0]["cost_allocation_percentage"], 40);
    let february = corporation.invoice(&corporation.parent, "").await.json;
    assert_eq!(february["period"], "2024-02");
    assert_eq!(february["line_items"][0]["cost_allocation_percentage"], 20);
}

async fn the_lines_of_an_invoice_add_up_in_json_and_csv(on: Backend) {
    let corporation = corporation(on).await;
    corporation.put(&corporation.document([40.0, 35.0, 25.0])).await;
    let answer = corporation.invoice(&corporation.parent, "?period=2024-01").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let invoice = answer.json;
    assert_eq!(invoice["status"], "draft");
    assert_eq!(invoice["invoice_number"], Value::Null);
    assert_eq!(invoice["period_end"], "2024-02-01T00:00:00Z");
    assert_eq!((&invoice["total"], &invoice["total_minor"]), (&"100.01".into(), &10_001.into()));
    let amounts: Vec<_> = invoice["line_items"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["amount"].as_str().expect("text"))
        .collect();
    assert_eq!(amounts, ["40.01", "35.00", "25.00"]);
    let charged: u64 = invoice["charges"]
        .as_array()
        .expect("charges")
        .iter()
        .map(|charge| charge["amount_minor"].as_u64().expect("a number"))
        .sum();
    assert_eq!(charged, 10_001);
    let path = corporation.path(&corporation.parent, "/invoices");
    let by_field = [("accept", "text/csv")];
    let by_field = corporation.control.with(("GET", path.as_str()), &by_field, "").await;
    let by_query = corporation.invoice(&corporation.parent, "?format=csv").await;
    assert_eq!(by_field.text, by_query.text);
    assert_eq!(by_field.headers["content-type"], "text/csv; charset=utf-8");
    let ids: Vec<_> =
        corporation.children.iter().map(|child| child["id"].as_str().expect("an id")).collect();
    let payer = corporation.parent["id"].as_str().expect("an id");
    let expected = format!(
        "invoice_number,status,period,billed_to,tenant_id,organization_name,\
         cost_allocation_percentage,amount,currency\r\n\
         ,draft,2024-01,{payer},{},\"child-1, Inc.\",40,40.01,USD\r\n\
         ,draft,2024-01,{payer},{},\"child-2, Inc.\",35,35.00,USD\r\n\
         ,draft,2024-01,{payer},{},\"child-3, Inc.\",25,25.00,USD\r\n",
        ids[0], ids[1], ids[2]
    );
    assert_eq!(by_field.text, expected);
    let bad = corporation.invoice(&corporation.parent, "?period=2024-13&format=pdf").await;
    assert_eq!(bad.bad_fields(), ["period", "format"]);
    for month in ["2023-12", "2024-02"] {
        let none = corporation.invoice(&corporation.parent, &format!("?period={month}")).await;
        assert_eq!(none.bad_fields(), ["period"], "{month}");
    }
}

async fn an_invoice_is_issued_once_and_only_for_a_month_that_is_over(on: Backend) {
    let corporation = corporation(on).await;
    corporation.put(&corporation.document([40.0, 35.0, 25.0])).await;
    let open = corporation.issue(&corporation.parent, "2024-01").await;
    assert_eq!((open.status, &open.json["code"]), (409, &"period-open".into()));
    corporation.control.clock.advance_ms(31 * DAY_MS);
    let child = corporation.issue(&corporation.children[0], "2024-01").await;
    assert_eq!((child.status, &child.json["code"]), (409, &"billed-to-parent".into()));
    let issued = corporation.issue(&corporation.parent, "2024-01").await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert_eq!(issued.json["status"], "issued");
    assert_eq!(issued.json["invoice_number"], "INV-00000001");
    assert_eq!(issued.json["issued_at"], "2024-02-01T00:00:00Z");
    let location = issued.headers["location"].to_str().expect("text");
    corporation.control.patch(&corporation.children[0], &json!({"plan": "developer"})).await;
    corporation.control.catalog.send_modify(|catalog| *catalog = Arc::default());
    assert_eq!(corporation.control.get(location).await.json, issued.json);
    let again = corporation.issue(&corporation.parent, "2024-01").await;
    assert_eq!((again.status, again.json), (200, issued.json));
    let undeclared = corporation.invoice(&corporation.parent, "?period=2024-02").await;
    assert_eq!((undeclared.status, &undeclared.json["code"]), (409, &"plan-undeclared".into()));
    assert_eq!(corporation.issue(&corporation.parent, "x").await.bad_fields(), ["period"]);
    let path = format!("/api/v1/tenants/{}/audit", corporation.parent["id"].as_str().expect("id"));
    let audit = corporation.control.get(&path).await;
    let acts: Vec<_> = audit.json["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|entry| entry["action"].as_str().expect("text"))
        .filter(|action| !action.starts_with("tenant."))
        .collect();
    assert_eq!(acts, ["billing.set", "invoice.issue"]);
}

async fn a_child_sees_its_own_line_and_nothing_else_of_the_bill(on: Backend) {
    let corporation = corporation(on).await;
    corporation.put(&corporation.document([40.0, 35.0, 25.0])).await;
    let child = &corporation.children[1];
    let token = corporation.token(child, "tenant-admin").await;
    let path = corporation.path(child, "/invoices?period=2024-01");
    let seen = corporation.control.as_token(&token, "GET", &path, &Value::Null).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    assert_eq!(seen.json["billed_to"], corporation.parent["id"]);
    assert_eq!(seen.json["total"], "35.00");
    assert_eq!(seen.json["line_items"].as_array().expect("lines").len(), 1);
    assert_eq!(seen.json["charges"], json!([]));
    for sibling in [&corporation.children[0], &corporation.children[2]] {
        assert!(!seen.text.contains(sibling["id"].as_str().expect("an id")));
    }
}

async fn a_tenant_with_a_share_is_not_moved_out(on: Backend) {
    let corporation = corporation(on).await;
    corporation.put(&corporation.document([40.0, 35.0, 25.0])).await;
    let out = json!({"parent_tenant_id": null});
    let child = &corporation.children[0];
    let refused = corporation.control.patch(child, &out).await;
    assert_eq!((refused.status, &refused.json["code"]), (409, &"billing-consolidated".into()));
    let parent = corporation.parent["id"].as_str().expect("an id");
    assert!(refused.json["detail"].as_str().expect("text").contains(parent));
    let apart = json!({"billing_consolidation": {"consolidated_invoicing": false}});
    assert_eq!(corporation.put(&apart).await.status, 200);
    assert_eq!(corporation.control.patch(child, &out).await.status, 200);
    let own = corporation.invoice(child, "").await.json;
    assert_eq!((&own["billed_to"], &own["total"]), (&child["id"], &"25.00".into()));
    assert_eq!(corporation.control.get(&path_of(child)).await.json["version"], 3);
}

async fn who_may_read_settle_and_issue(on: Backend) {
    let corporation = corporation(on).await;
    let (parent, child) = (&corporation.parent, &corporation.children[0]);
    let document = corporation.document([40.0, 35.0, 25.0]);
    let issue = json!({"period": "2024-01"});
    let parents = corporation.token(parent, "parent-admin").await;
    let own = corporation.token(parent, "tenant-admin").await;
    let childs = corporation.token(child, "tenant-admin").await;
    let (settings, invoices) =
        (corporation.path(parent, ""), corporation.path(parent, "/invoices"));
    for (token, method, path, body, expected) in [
        (&parents, "PUT", &settings, &document, 200),
        (&parents, "GET", &settings, &Value::Null, 200),
        (&parents, "GET", &corporation.path(child, "/invoices"), &Value::Null, 200),
        (&parents, "POST", &invoices, &issue, 403),
        (&own, "GET", &invoices, &Value::Null, 200),
        (&own, "PUT", &settings, &document, 403),
        (&own, "GET", &corporation.path(child, ""), &Value::Null, 404),
        (&childs, "GET", &settings, &Value::Null, 404),
        (&childs, "PUT", &settings, &document, 404),
        (&childs, "POST", &invoices, &issue, 404),
    ] {
        let answer = corporation.control.as_token(token, method, path, body).await;
        assert_eq!(answer.status, expected, "{method} {path} {}", answer.text);
    }
    let nobody = "/api/v1/tenants/00000000-0000-7000-8000-000000000000/billing";
    assert_eq!(corporation.control.get(nobody).await.status, 404);
    assert_eq!(corporation.control.get(&format!("{nobody}/invoices")).await.status, 404);
}
