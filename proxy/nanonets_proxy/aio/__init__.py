"""What asyncio lacks: time limits that move, waits with a time limit, and threads that delay no exit."""
