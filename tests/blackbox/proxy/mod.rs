mod bad_input;
mod forwarding;
mod protocols;
mod tenants;
