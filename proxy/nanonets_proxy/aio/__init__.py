"""What asyncio lacks: waits with a time limit, and threads that delay no exit."""
