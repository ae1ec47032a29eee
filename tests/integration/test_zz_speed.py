import time, redis, threading
from tests.integration.doors import *
from tests.integration.trace import a_trace
from metering.events.stream import StreamConsumer
from metering.events import stream as S
import pytest
@pytest.mark.parametrize("ahead",[50,200])
def test_speed(services, redis_url, monkeypatch, ahead):
    monkeypatch.setattr(S,"ENTRIES_AHEAD",ahead)
    t=a_trace(20000)
    c=redis.Redis.from_url(redis_url)
    p=c.pipeline()
    for l in t.lines: p.xadd(STREAM, entry([l]))
    p.execute()
    stop=threading.Event()
    cons=StreamConsumer(services.redis(), services.intake, stream=STREAM, claim_ms=500, events_max=10000)
    th=threading.Thread(target=cons.run,args=(stop,)); t0=time.time(); th.start()
    until(lambda: c.xlen(STREAM)==0, 100); print("ahead",ahead, time.time()-t0); stop.set(); th.join()
