mod api_host;
mod bad_input;
mod forwarding;
mod metering;
mod protocols;
mod tenants;
