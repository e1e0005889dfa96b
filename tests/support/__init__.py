"""What tests start and stop: servers, child processes. Nothing here knows what is tested."""
