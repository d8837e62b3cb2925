"""Snowpipe Streaming's REST interface: channels, their rows, and the commit that makes them durable."""
