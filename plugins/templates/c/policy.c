// Greets every request, stops some, and routes those that ask for a region.
// Everything that a policy may see and do stands in wit/policy.wit; `plugin build` makes
// gen/request_policy.h of it. Memory is never freed: an instance lives for one request.

#include <stdlib.h>
#include <string.h>

#include "request_policy.h"

typedef request_policy_string_t text;
typedef exports_leanvibe_policy_request_hook_decision_t decision;

// What is lent to the host for a call; nobody frees it.
static text lit(const char *chars) {
    return (text){.ptr = (uint8_t *)chars, .len = strlen(chars)};
}

static bool same(text a, text b) {
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

static text join(text a, text b, text c) {
    text all = {.ptr = malloc(a.len + b.len + c.len), .len = a.len + b.len + c.len};
    if (all.ptr == NULL) abort();
    memcpy(all.ptr, a.ptr, a.len);
    memcpy(all.ptr + a.len, b.ptr, b.len);
    memcpy(all.ptr + a.len + b.len, c.ptr, c.len);
    return all;
}

static bool header(const char *name, text *value) {
    text key = lit(name);
    return leanvibe_policy_request_header(&key, value);
}

static bool may_use(text region) {
    request_policy_list_string_t regions;
    leanvibe_policy_tenant_residency(&regions);
    for (size_t i = 0; i < regions.len; i++) {
        if (same(regions.ptr[i], region)) return true;
    }
    return false;
}

// What a decision holds is freed after the call, so it is copied to the heap.
static void stop(decision *ret) {
    ret->tag = EXPORTS_LEANVIBE_POLICY_REQUEST_HOOK_DECISION_RESPOND;
    exports_leanvibe_policy_request_hook_local_response_t *response = &ret->val.respond;
    response->status = 403;
    response->headers.len = 1;
    response->headers.ptr = malloc(sizeof *response->headers.ptr);
    if (response->headers.ptr == NULL) abort();
    request_policy_string_dup(&response->headers.ptr[0].f0, "content-type");
    request_policy_string_dup(&response->headers.ptr[0].f1, "text/plain");
    response->body.tag = LEANVIBE_POLICY_TYPES_CONTENT_TEXT;
    request_policy_string_dup(&response->body.val.text, "stopped by my-policy\n");
}

// False, with a text in `err`, means that the policy itself failed; `on_failure` says what
// happens then.
bool exports_leanvibe_policy_request_hook_on_request(decision *ret, text *err) {
    text say;
    if (header("x-say", &say) && same(say, lit("stop"))) {
        stop(ret);
        return true;
    }
    text greeting, slug, key = lit("greeting"), name = lit("x-greeting");
    if (!leanvibe_policy_config_get(&key, &greeting)) greeting = lit("hello");
    leanvibe_policy_tenant_slug(&slug);
    text value = join(greeting, lit(", "), slug);
    leanvibe_policy_request_edit_error_t refused;
    if (!leanvibe_policy_request_set_header(&name, &value, &refused)) {
        request_policy_string_dup(err, "x-greeting was refused");
        return false;
    }
    text region;
    // The host refuses a region outside the tenant's residency.
    if (header("x-region", &region) && may_use(region)) {
        ret->tag = EXPORTS_LEANVIBE_POLICY_REQUEST_HOOK_DECISION_ROUTE;
        ret->val.route.tag = LEANVIBE_POLICY_TYPES_TARGET_REGION;
        ret->val.route.val.region = region;
        return true;
    }
    ret->tag = EXPORTS_LEANVIBE_POLICY_REQUEST_HOOK_DECISION_CONTINUE;
    return true;
}
