"""Real servers and scripted peers: what an application, or a server, does when it is tried."""
