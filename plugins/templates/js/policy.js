// Greets every request, stops some, and routes those that ask for a region.
// Everything that a policy may see and do stands in wit/policy.wit.

import config from "leanvibe:policy/config@0.1.0";
import request from "leanvibe:policy/request@0.1.0";
import tenant from "leanvibe:policy/tenant@0.1.0";

export const requestHook = {
  // What is thrown means that the policy itself failed; `on_failure` says what happens then.
  onRequest() {
    if (request.header("x-say") === "stop") {
      return { tag: "respond", val: stopped() };
    }
    const greeting = config.get("greeting") ?? "hello";
    request.setHeader("x-greeting", `${greeting}, ${tenant.slug()}`);
    const region = request.header("x-region");
    // The host refuses a region outside the tenant's residency.
    if (region && tenant.residency().includes(region)) {
      return { tag: "route", val: { tag: "region", val: region } };
    }
    return { tag: "continue" };
  },
};

function stopped() {
  return {
    status: 403,
    headers: [["content-type", "text/plain"]],
    body: { tag: "text", val: "stopped by my-policy\n" },
  };
}
